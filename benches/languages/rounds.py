"""Two sides that do the same, measured in turn, for the rows of scripts/bench-languages."""

import time

ROUNDS = 9


def measured(run, count, rows):
    wall, cpu = time.perf_counter(), time.process_time()
    run(count)
    rows.append(((time.perf_counter() - wall) * 1e6 / count, (time.process_time() - cpu) * 1e6 / count))


def median(values):
    return sorted(values)[len(values) // 2]


def compare(what, how, name, count, by_vigie, by_own, warm):
    """Rounds in turn, so that what disturbs one disturbs the other. Without `by_own` one side is measured."""
    sides = [(by_vigie, [])] + ([(by_own, [])] if by_own else [])
    for run, _ in sides:
        run(warm)
    for turn in range(ROUNDS):
        for run, rows in sides if turn % 2 else reversed(sides):
            measured(run, count, rows)
    figures = [f"{median(column):.2f}" for _, rows in sides for column in zip(*rows)]
    print("\t".join([what, how, name, *figures]))
