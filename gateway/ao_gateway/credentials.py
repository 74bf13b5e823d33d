"""What outlives its request ends with its credential."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Final, Protocol

from ao_gateway.access import Access
from ao_gateway.errors import Refusal

# For what ends by itself; of what is changed the access is told.
RECHECK_SECONDS: Final = 0.5


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
        with suppress(TimeoutError):
            async with asyncio.timeout(RECHECK_SECONDS):
                await access.changed.wait()
        access.changed.clear()
        losses = access.losses
        is_certain = True
        for credential in {each for holder in holders for each in holder.credentials}:
            try:
                await access.authenticate(credential)
            except Refusal as refusal:
                if refusal.status == 401:
                    for holder in holders:
                        holder.end_credential(credential)
                else:
                    is_certain = False
        if is_certain:
            access.verified(losses)
