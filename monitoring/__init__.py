"""One folder a tool, named as the tool; `build` makes what is generated in them."""
