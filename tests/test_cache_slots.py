import random

import torch

from mingmoe_eval.engine.transformers_door import CacheSlots

HEADS, WIDTH, LAYERS = 2, 3, 2


class Reference:
    """Each row's keys and values as a plain list of columns."""

    def __init__(self, rows):
        self.rows = [[] for _ in range(rows)]

    def check(self, slots):
        device = torch.device("cpu")
        mask = slots.mask(device)
        for row, columns in enumerate(self.rows):
            assert slots.lengths[row] == len(columns)
            # The last column is the step to come.
            seen = mask[row, :-1].bool()
            assert seen.sum() == len(columns)
            for number, layer in enumerate(slots.cache.layers):
                stored = layer.keys[row, :, : slots.stop][:, seen]
                expected = [column * (number + 1) for column in columns]
                assert stored[0, :, 0].tolist() == expected
                assert layer.values[row, :, : slots.stop][1, seen, 2].tolist() == expected


def states(columns):
    """Keys and values of every layer; layer n holds the numbers times n + 1."""
    row = torch.tensor(columns, dtype=torch.float32)[None, :, None].expand(HEADS, -1, WIDTH)
    return [(row * (n + 1), row * (n + 1)) for n in range(LAYERS)]


def step(slots, reference, numbers):
    slots.prepare_step()
    for layer_number, layer in enumerate(slots.cache.layers):
        new = torch.tensor(numbers, dtype=torch.float32)[:, None, None, None]
        new = new.expand(-1, HEADS, 1, WIDTH) * (layer_number + 1)
        keys, _ = layer.update(new, new)
        assert keys.shape[2] == slots.stop + 1
    slots.advance()
    for row, number in enumerate(numbers):
        reference.rows[row].append(number)


def test_rows_keep_their_columns_whatever_joins_leaves_and_grows():
    draw = random.Random(5)
    slots, reference = CacheSlots(4), Reference(4)
    counter = iter(range(1, 100_000))
    for row in range(4):
        columns = [next(counter) for _ in range(30 - row)]
        slots.put(row, [states(columns[:10]), states(columns[10:])])
        reference.rows[row] = columns
    for turn in range(600):
        step(slots, reference, [next(counter) for _ in reference.rows])
        if turn % 11 == 0:
            row = draw.randrange(len(reference.rows))
            slots.free(row)
            # Now and then a prompt that is longer than the time so far.
            columns = [next(counter) for _ in range(draw.choice([1, 5, 40, slots.stop + 3]))]
            slots.put(row, [states(columns)])
            reference.rows[row] = columns
        if turn % 97 == 0:
            reference.check(slots)
        if turn in (200, 400):
            kept = [0, 2] if turn == 200 else [1]
            slots.keep(kept)
            reference.rows = [reference.rows[row] for row in kept]
    reference.check(slots)


def test_columns_that_no_row_needs_are_given_back():
    slots, reference = CacheSlots(2), Reference(2)
    for row, length in enumerate((500, 2)):
        slots.put(row, [states(list(range(length)))])
        reference.rows[row] = list(range(length))
    slots.keep([1])
    reference.rows = reference.rows[1:]
    for number in range(200):
        step(slots, reference, [number])
    reference.check(slots)
    assert slots.cache.layers[0].keys.shape[2] < 400
