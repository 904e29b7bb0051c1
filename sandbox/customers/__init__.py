"""The shop's customers, who are not there: a load generator that behaves as people do.

`python -m sandbox.customers` goes on until SIGTERM; with `--once` each thing that customers do is done once
and told on a line, and the exit code says how it went. They are ordinary traffic, in every KPI. They run in
a process of their own, since locust replaces the sockets of whoever imports it (load.py and __main__.py do).

    settings.py    whom to visit, how many, how fast
    deck.py        shares without luck: what is rare comes as often as it should, and does come
    wares.py       what is dealt: currencies, sizes of orders, cards, sources
    accounts.py    a bounded number of people, who come back
    http.py        a request and its answer, whoever makes it
    customer.py    one person in the shop: requests, and what a good answer to each is
    journeys.py    what people do in a shop
    mischief.py    what people do that nobody likes
    book.py        all of these with their shares, and a tour through each of them
    presence.py    the API is away: wait, and say so once
    wave.py        day and night
    load.py        locust: several customers at once, and a line a minute
    tour.py        everything once
"""
