"""What outlives its request ends with its credential."""

import asyncio
from collections.abc import Collection
from typing import Final, Protocol

from ao_gateway.access import Access
from ao_gateway.errors import Refusal

RECHECK_SECONDS: Final = 1.0


class Holder(Protocol):
    """Connections that stay open under a credential."""

    @property
    def credentials(self) -> Collection[str]:
        """All that are in use."""
        ...

    def end_credential(self, credential: str) -> None:
        """Ends the connections under a credential that is not good any more."""
        ...


async def recheck(access: Access, holders: Collection[Holder]) -> None:
    """Ends connections whose credential has ended, until cancelled."""
    while True:
        await asyncio.sleep(RECHECK_SECONDS)
        for credential in {each for holder in holders for each in holder.credentials}:
            try:
                await access.authenticate(credential)
            except Refusal as refusal:
                if refusal.status == 401:
                    for holder in holders:
                        holder.end_credential(credential)
