"""Addresses among the details of an event are links: Bugsink 2.6 shows every value as mere text.

Read by: Bugsink, as a library of template filters that come after Django's own (see bugsink_settings.py).
`linebreaks` is the filter that its page of event details shows values with. Tested by
tests/integration/test_bugsink_stack.py.

Must never make anything else than a link of a value: events hold what strangers sent.
"""

from django import template  # type: ignore[import-not-found]  # in Bugsink's environment only
from django.template.defaultfilters import linebreaks_filter  # type: ignore[import-not-found]
from django.utils.html import format_html  # type: ignore[import-not-found]

register = template.Library()


def linebreaks(value: object, autoescape: bool = True) -> str:
    """Return paragraphs as Django's filter does; of a value that is an http(s) address, a link."""
    text = str(value)
    if not text.startswith(("http://", "https://")) or any(map(str.isspace, text)):
        return str(linebreaks_filter(value, autoescape=autoescape))
    link = '<p><a href="{}" class="underline" rel="noopener noreferrer nofollow">{}</a></p>'
    return str(format_html(link, text, text))


register.filter("linebreaks", linebreaks, is_safe=True, needs_autoescape=True)
