"""The failure table: every answer of the exchange that we know the meaning of, in the order in which it is searched.

Searched from the top, the first matching row counts. What is in doubt stands above what is certain, a venue's own
rows above those that both share, a code with a text above the bare code, a code above a bare status. The last row takes
everything that is left, and calls it unknown. docs/reference/failures.md shows the whole.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from app.job_safety.failure_row import Row, TransportFault
from app.job_safety.failure_table_shared import IN_DOUBT_ROWS, SHARED_ROWS, TRANSPORT_ROWS, UNLISTED
from app.job_safety.failure_table_spot import SPOT_ROWS
from app.job_safety.failure_table_usdm import USDM_ROWS

TABLE: Final[tuple[Row, ...]] = (*IN_DOUBT_ROWS, *USDM_ROWS, *SPOT_ROWS, *SHARED_ROWS, UNLISTED)

TRANSPORT: Final[Mapping[TransportFault, Row]] = MappingProxyType(dict(TRANSPORT_ROWS))

BY_RULE: Final[Mapping[str, Row]] = MappingProxyType({row.rule: row for row in (*TABLE, *TRANSPORT.values())})

__all__ = ["BY_RULE", "TABLE", "TRANSPORT", "UNLISTED"]
