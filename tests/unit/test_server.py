"""How the server is configured."""

import gc

from fastapi import FastAPI

from app.server import _Config


def test_what_the_start_has_made_is_not_looked_at_again() -> None:
    made = [{"route": number} for number in range(10_000)]
    gc.unfreeze()
    try:
        config = _Config(FastAPI())
        config.load()

        assert config.loaded
        assert gc.get_freeze_count() > len(made)
        assert not any(one in made for one in gc.get_objects() if type(one) is dict)
    finally:
        gc.unfreeze()
