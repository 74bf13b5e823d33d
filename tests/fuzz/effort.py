"""How much is tried: FUZZ_EXAMPLES inputs over all targets together, always the same ones unless FUZZ_SEED is set."""

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

from hypothesis import HealthCheck, Phase, seed, settings

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "21000"))
SEED: Final = os.environ.get("FUZZ_SEED")

TestType = TypeVar("TestType", bound=Callable[..., Any])


def fuzzed(share: float, *, shrinks: bool = True) -> Callable[[TestType], TestType]:
    """Runs a hypothesis test on this share of all inputs. `shrinks`: a failure is made as small as possible."""

    def decorate(test: TestType) -> TestType:
        chosen = settings(
            max_examples=max(1, round(EXAMPLES * share)),
            derandomize=SEED is None,
            database=None,
            # Time is bounded by the tests themselves, in time of the processor.
            deadline=None,
            phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if shrinks else [])],
            suppress_health_check=[
                HealthCheck.function_scoped_fixture,
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
            ],
        )(test)
        return chosen if SEED is None else seed(int(SEED))(chosen)

    return decorate
