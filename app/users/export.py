"""The data export: everything that is stored about one person, gathered from every domain.

Users know nothing of orders or payments (imports run one way), so `create_app` hands over one function
for each section.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

Section = Callable[[AsyncSession, uuid.UUID], Awaitable[list[dict[str, Any]]]]
"""Returns what one domain stores about the user with this id, as JSON-serialisable records."""


def get_sections(request: Request) -> Mapping[str, Section]:
    """Return the sections that `create_app` has put together."""
    sections: Mapping[str, Section] = request.app.state.export_sections
    return sections


ExportSections = Annotated[Mapping[str, Section], Depends(get_sections)]
