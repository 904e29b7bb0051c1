"""The stack of docker-compose.yml: what prepares it, starts it and says how it is."""
