"""Binary heaps of (key, item), both int64; the smallest key first, then the smallest item."""

from ssjf.simulator.kernel.compiled import inlined


@inlined
def push(keys, items, size, key, item):
    """Add one; returns the new size."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if keys[parent] < key or (keys[parent] == key and items[parent] < item):
            break
        keys[i] = keys[parent]
        items[i] = items[parent]
        i = parent
    keys[i] = key
    items[i] = item
    return size + 1


@inlined
def drop_first(keys, items, size):
    """Remove the smallest, ``items[0]``; returns the new size."""
    size -= 1
    key = keys[size]
    item = items[size]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            keys[other] < keys[child]
            or (keys[other] == keys[child] and items[other] < items[child])
        ):
            child = other
        if keys[child] > key or (keys[child] == key and items[child] > item):
            break
        keys[i] = keys[child]
        items[i] = items[child]
        i = child
    keys[i] = key
    items[i] = item
    return size
