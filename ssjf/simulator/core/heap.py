"""Binary heaps in a row of ``tables``: the smallest key first, then the smallest item.

Where ``tracked``, the row below has the place of every item, so that one can be taken out.
"""

from ssjf.simulator.core.compiled import compiled


@compiled
def rise(tables, row, place, key, item, tracked):
    """Put an entry where ``place`` is free and nothing is below, or above its new children."""
    while place > 0:
        parent = (place - 1) >> 1
        above = tables[row, parent]
        if above.key < key or (above.key == key and above.item < item):
            break
        tables[row, place].key = above.key
        tables[row, place].item = above.item
        if tracked:
            tables[row + 1, above.item].item = place
        place = parent
    tables[row, place].key = key
    tables[row, place].item = item
    if tracked:
        tables[row + 1, item].item = place


@compiled
def sink(tables, row, size, place, key, item, tracked):
    """Put an entry where ``place`` is free, or further down."""
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        least = tables[row, child]
        if child + 1 < size:
            other = tables[row, child + 1]
            if other.key < least.key or (other.key == least.key and other.item < least.item):
                least = other
                child += 1
        if least.key > key or (least.key == key and least.item > item):
            break
        tables[row, place].key = least.key
        tables[row, place].item = least.item
        if tracked:
            tables[row + 1, least.item].item = place
        place = child
    tables[row, place].key = key
    tables[row, place].item = item
    if tracked:
        tables[row + 1, item].item = place


@compiled
def take_out(tables, row, size, place, tracked):
    """Remove the entry at a place of a heap that then has ``size`` entries."""
    if place == size:
        return
    last = tables[row, size]
    up = tables[row, (place - 1) >> 1]
    if place > 0 and (last.key < up.key or (last.key == up.key and last.item < up.item)):
        rise(tables, row, place, last.key, last.item, tracked)
    else:
        sink(tables, row, size, place, last.key, last.item, tracked)
