"""Which place needs which: what orders and dependencies mean, as edges without cycles. Places count from 0."""

from collections.abc import Iterable, Sequence

# For each place, the places directly in front of it.
Needs = list[tuple[int, ...]]


def in_sequence(orders: Sequence[int]) -> Needs:
    """Edges for steps that go by their order, equal ones in parallel.

    Between two groups of more than one step stands a join, a place behind those of the steps, so that the number of
    edges stays linear: it needs all of the first group, and all of the second need it.
    """
    groups: dict[int, list[int]] = {}
    for place in sorted(range(len(orders)), key=orders.__getitem__):
        groups.setdefault(orders[place], []).append(place)
    needs: Needs = [()] * len(orders)
    before: tuple[int, ...] = ()
    for group in groups.values():
        if len(before) > 1 and len(group) > 1:
            needs.append(before)
            before = (len(needs) - 1,)
        for place in group:
            needs[place] = before
        before = tuple(group)
    return needs


def feeds_of(needs: Needs) -> Needs:
    """For each place, the places directly behind it."""
    feeds: list[list[int]] = [[] for _ in needs]
    for place, before in enumerate(needs):
        for each in before:
            feeds[each].append(place)
    return [tuple(each) for each in feeds]


def sorted_places(needs: Needs, feeds: Needs) -> list[int]:
    """Each place behind those it needs. Those on a cycle or behind one are left out."""
    unmet = [len(before) for before in needs]
    found = [place for place, count in enumerate(unmet) if count == 0]
    for place in found:
        for behind in feeds[place]:
            unmet[behind] -= 1
            if unmet[behind] == 0:
                found.append(behind)
    return found


def cycle(needs: Needs, among: Iterable[int]) -> list[int]:
    """Places of which each needs the next and the last the first; it begins with the lowest.

    `among`: the places that could not be sorted, at least one.
    """
    unsorted = set(among)
    at = min(unsorted)
    passed: dict[int, int] = {}
    while at not in passed:
        passed[at] = len(passed)
        at = next(each for each in needs[at] if each in unsorted)
    found = list(passed)[passed[at] :]
    lowest = found.index(min(found))
    return found[lowest:] + found[:lowest]


def ancestors(needs: Needs, in_order: Iterable[int]) -> list[int]:
    """For each place, a bit for each that ends before it can begin. `in_order`: as `sorted_places` gives them."""
    found = [0] * len(needs)
    for place in in_order:
        bits = 0
        for each in needs[place]:
            bits |= found[each] | 1 << each
        found[place] = bits
    return found
