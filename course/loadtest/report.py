"""The report of a load test: tables, CSV, JSON, plots."""

from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console

from course.base import reports
from course.base.files import whole_folder
from course.base.reports import spread
from course.loadtest.ceiling import Work
from course.loadtest.plan import Measured, Plan

PERCENTILES = (50, 95, 99)
BUSY = 0.3  # cores; the kernel's own work for the connections is about 0.1


def report(plan: Plan, measured: Measured, taken_on: dict, output: Path, console: Console) -> None:
    """Print the tables, 80 columns wide, and how to read them; write a folder with everything."""
    rows = summaries(plan, measured)
    console.print()
    show_rates(plan, rows, measured.ceilings, console)
    show_latencies(rows, console)
    if measured.alone:
        show_batching(rows, measured.alone, console)
    console.print(
        f"{taken_on['used_cores']} cores, which the client shares. locust is a closed loop: each of {plan.users} users"
        " sends the next request only after the answer to the last. A slow service is asked less often, and callers who"
        " come at any time would meet other latencies.",
        soft_wrap=True,
    )
    others = max(turn.other_cores for turn in measured.turns)
    if others > BUSY:
        said = f"Other programs took up to {others:.1f} cores meanwhile: measure again on a quiet machine."
        console.print(said, style="yellow")
    if random := [model for model, weights in taken_on["weights"].items() if weights.startswith("random")]:
        console.print(f"RANDOM weights in {', '.join(random)}: as fast as others, and meaningless.", soft_wrap=True)
    write(plan, measured, rows, taken_on, output)


def summaries(plan: Plan, measured: Measured) -> list[dict]:
    """One dictionary a service, over all rounds; in the plan's order."""
    rows, first = [], []
    for variant in plan.variants:
        turns = [turn for turn in measured.turns if turn.service == variant.name]
        rates, ceilings = [turn.rate for turn in turns], measured.ceilings[plan.work(variant)]
        first = first or rates
        milliseconds = np.concatenate([turn.milliseconds for turn in turns])
        failures = sum((Counter(turn.failures) for turn in turns), Counter())
        apis = dict.fromkeys(api for turn in turns for api in turn.batches)
        rows.append(
            {
                "service": variant.name,
                "work": described(plan.work(variant)),
                "successes": sum(turn.successes for turn in turns),
                "failed": failures.total(),
                "failures": failures,
                "requests_per_s": rates,
                "times_first": ratios(rates, first),
                "ceiling_per_s": ceilings,
                "share_of_ceiling": ratios(rates, ceilings),
                "percentiles": np.percentile(milliseconds, PERCENTILES).tolist() if len(milliseconds) else None,
                "batches": {api: median(turn.batches[api] for turn in turns if api in turn.batches) for api in apis},
                "server_cores": median(turn.server_cores for turn in turns),
                "client_cores": median(turn.client_cores for turn in turns),
                "server_megabytes": max(turn.megabytes for turn in turns),
                "shares": min((turn.shares for turn in turns), key=lambda shares: shares[0] if shares else 0),
            }
        )
    return rows


def ratios(rates: list[float], others: list[float]) -> list[float]:
    """Round by round; none where there is nothing to compare with."""
    return [one / other for one, other in zip(rates, others, strict=True)] if all(others) else []


def described(work: Work) -> str:
    """The work of one request: `decode, preprocess, resnet18`."""
    models = [Path(model).stem for model in work.models]
    return ", ".join((["decode", "preprocess"] if work.payload == "image" else []) + models)


def show_rates(plan: Plan, rows: list[dict], ceilings: dict[Work, list[float]], console: Console) -> None:
    """Throughput, ratios, shares of the ceiling, and why requests failed."""
    rounds = f"{plan.rounds} round{'s' * (plan.rounds > 1)}"
    title = f"Successful requests/s: {plan.users} users, payload {plan.payload}, {plan.duration} s, {rounds}"
    columns = ("requests/s", "failed", "times\nthe first", "share of\nthe ceiling", "images\na batch")
    table = reports.table(f"{title}\nMedian (least-most) of the rounds", "service", *columns)
    for row in rows:
        batches = "\n".join(f"{size:.1f}" for size in row["batches"].values()) or "-"
        shown = [spread(row["requests_per_s"], 1), str(row["failed"]), spread(row["times_first"], 2)]
        table.add_row(row["service"], *shown, spread(row["share_of_ceiling"], 2), batches)
    console.print(table)
    for work, rates in ceilings.items():
        console.print(f"The ceiling, {described(work)} without a server: {spread(rates, 1, ' ')} images/s")
    for row in rows:
        if row["failures"]:
            reasons = "; ".join(f"{times} x {reason}" for reason, times in row["failures"].most_common(3))
            said = f"{row['service']}: {row['failed']} of {row['failed'] + row['successes']} failed: {reasons}"
            console.print(said, style="bold red", markup=False, soft_wrap=True)


def show_latencies(rows: list[dict], console: Console) -> None:
    """Latency percentiles over all rounds, and the cores and memory used."""
    title = "Latency of the successful requests (closed loop), and what was used meanwhile"
    columns = [f"p{percentile}\n(ms)" for percentile in PERCENTILES]
    columns += ["server\n(cores)", "client\n(cores)", "server's\nmemory (MB)"]
    table = reports.table(title, "service", *columns)
    for row in rows:
        percentiles = [f"{value:.0f}" for value in row["percentiles"]] if row["percentiles"] else ["-"] * 3
        used = [f"{row['server_cores']:.2f}", f"{row['client_cores']:.2f}", f"{row['server_megabytes']:.0f}"]
        table.add_row(row["service"], *percentiles, *used)
    console.print(table)
    for row in rows:
        if len(row["shares"]) > 1:
            parts = ", ".join(f"{share:.0%}" for share in row["shares"])
            said = f"{row['service']}: its workers did {parts} of the work, in the round where they differed most."
            console.print(said)


def show_batching(rows: list[dict], alone: list[dict[int, float]], console: Console) -> None:
    """What batching gains the session alone, beside what it gains the service."""
    title = "Batching in the session alone, without a server"
    table = reports.table(title, "batch", "images/s", "times batch 1", words=0)
    for batch in alone[0]:
        rates, gains = [rates[batch] for rates in alone], [rates[batch] / rates[1] for rates in alone]
        table.add_row(str(batch), spread(rates, 1, " "), spread(gains, 2, " "))
    console.print(table)
    said = batching(rows, alone)
    if said is None:
        console.print("No batches were served: there is nothing to compare the session's gain with.")
        return
    console.print(
        f"Served: {said['served_gain']:.2f} times, at {said['mean_batch']:.1f} images a batch. The session alone gains "
        f"{said['bare_gain']:.2f} times there (between the sizes above), so the service keeps {said['share']:.2f} of it.",
        soft_wrap=True,
    )


def batching(rows: list[dict], alone: list[dict[int, float]]) -> dict | None:
    """The last service's gain over the first, and the session's at the mean batch that was served."""
    if not rows[-1]["batches"] or not rows[-1]["times_first"]:
        return None
    mean, sizes = max(rows[-1]["batches"].values()), list(alone[0])
    gains = [median(rates[size] / rates[1] for rates in alone) for size in sizes]
    bare_gain = float(np.interp(np.log(mean), np.log(sizes), gains))
    served = median(rows[-1]["times_first"])
    return {"served_gain": served, "mean_batch": mean, "bare_gain": bare_gain, "share": served / bare_gain}


def write(plan: Plan, measured: Measured, rows: list[dict], taken_on: dict, output: Path) -> None:
    """Write table.csv, measurements.json, throughput.png and latency.png into a folder."""
    everything = {
        "machine": taken_on,
        "plan": plan._asdict() | {"folder": plan.folder.name, "variants": [one.name for one in plan.variants]},
        "ceilings": {described(work): rates for work, rates in measured.ceilings.items()},
        "session_alone": measured.alone,
        "batching": batching(rows, measured.alone) if measured.alone else None,
        "turns": [turn._asdict() for turn in measured.turns],
    }
    with whole_folder(output) as folder:
        reports.write(folder, [flat(row) for row in rows], everything)
        plot(plan, rows, taken_on, folder)


def flat(row: dict) -> dict:
    """A service's row of the CSV: of what was measured in each round, the median, the least and the most."""
    made = {name: row[name] for name in ("service", "work", "successes", "failed")}
    for name in ("requests_per_s", "times_first", "ceiling_per_s", "share_of_ceiling"):
        for ending, of in {"": median, "_least": min, "_most": max}.items():
            made[name + ending] = of(row[name]) if row[name] else None
    made |= {f"p{of}_ms": value for of, value in zip(PERCENTILES, row["percentiles"] or [None] * 3, strict=True)}
    made["images_a_batch"] = " ".join(f"{api}={size:.2f}" for api, size in row["batches"].items())
    return made | {name: row[name] for name in ("server_cores", "client_cores", "server_megabytes")}


def plot(plan: Plan, rows: list[dict], taken_on: dict, folder: Path) -> None:
    """Throughput with its spread below the ceiling, and latency percentiles."""
    import matplotlib.pyplot as plt

    names, places = [row["service"].replace(" ", "\n") for row in rows], np.arange(len(rows))
    taken = f"{taken_on['cpu']}, {taken_on['used_cores']} cores, {plan.users} users, payload {plan.payload}"

    def save(figure, axes, file: str, title: str) -> None:
        axes.set(xticks=places, xticklabels=names)
        axes.set_ylim(0, 1.2 * axes.get_ylim()[1])  # room for the legend
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize="small", loc="upper right")
        reports.save_picture(figure, folder / file, f"{title}\n{taken}, {plan.rounds} x {plan.duration} s")

    size = (max(6.4, 1.3 * len(rows) + 1.5), 4.6)
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    reports.bars(axes, [row["requests_per_s"] for row in rows], label="served, least to most of the rounds")
    ceilings = [median(row["ceiling_per_s"]) for row in rows]
    look = {"colors": "black", "linestyles": "--", "label": "ceiling: the same work without a server"}
    axes.hlines(ceilings, places - 0.5, places + 0.5, **look)
    axes.set_ylabel("successful requests/s")
    save(figure, axes, "throughput.png", "Throughput")

    figure, axes = plt.subplots(figsize=size, layout="constrained")
    for i, percentile in enumerate(PERCENTILES):
        heights = [row["percentiles"][i] if row["percentiles"] else 0 for row in rows]
        axes.bar(places + 0.27 * (i - 1), heights, 0.25, label=f"p{percentile}")
    axes.set_ylabel("milliseconds")
    save(figure, axes, "latency.png", "Latency of the successful requests, closed loop")
