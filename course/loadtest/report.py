"""The report of a load test: tables, CSV, JSON, plots."""

import json
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console

from course.base import reports
from course.base.files import whole_folder
from course.base.reports import spread
from course.loadtest.ceiling import Work
from course.loadtest.plan import Plan, Turn

PERCENTILES = (50, 95, 99)
BUSY = 0.3  # cores; the kernel's own work for the connections is about 0.1


def show(
    plan: Plan,
    turns: list[Turn],
    ceilings: dict[Work, list[float]],
    bare: list[dict[int, float]],
    taken_on: dict,
    console: Console,
) -> None:
    """Print the tables, 80 columns wide, and how to read them."""
    rows = summaries(plan, turns, ceilings)
    console.print()
    show_rates(plan, rows, ceilings, console)
    for row in rows:
        if row["failures"]:
            reasons = "; ".join(f"{times} x {reason}" for reason, times in row["failures"].most_common(3))
            said = f"{row['service']}: {row['failed']} of {row['failed'] + row['successes']} failed: {reasons}"
            console.print(said, style="bold red", markup=False, soft_wrap=True)
    show_latencies(rows, console)
    if bare:
        show_batching(rows, bare, console)
    console.print(
        f"{taken_on['used_cores']} cores, which the client shares. locust is a closed loop: each of {plan.users} users"
        " sends the next request only after the answer to the last. A slow service is asked less often, and callers who"
        " come at any time would meet other latencies.",
        soft_wrap=True,
    )
    others = max(turn.other_cores for turn in turns)
    if others > BUSY:
        console.print(
            f"Other programs took up to {others:.1f} cores meanwhile: measure again on a quiet machine.", style="yellow"
        )
    random = [model for model, weights in taken_on["weights"].items() if weights.startswith("random")]
    if random:
        console.print(f"RANDOM weights in {', '.join(random)}: as fast as others, and meaningless.", soft_wrap=True)


def summaries(plan: Plan, turns: list[Turn], ceilings: dict[Work, list[float]]) -> list[dict]:
    """One dictionary a service, over all rounds; in the plan's order."""
    rows = []
    first = [turn.rate for turn in turns if turn.service == plan.variants[0].name]
    for variant in plan.variants:
        own = [turn for turn in turns if turn.service == variant.name]
        rates = [turn.rate for turn in own]
        work = plan.work(variant)
        milliseconds = np.concatenate([turn.milliseconds for turn in own])
        failures = sum((Counter(turn.failures) for turn in own), Counter())
        batches: dict[str, list[float]] = {}
        for turn in own:
            for api, size in turn.batches.items():
                batches.setdefault(api, []).append(size)
        rows.append(
            {
                "service": variant.name,
                "work": described(work),
                "rates": rates,
                "over_first": ratios(rates, first),
                "ceilings": ceilings[work],
                "of_ceiling": ratios(rates, ceilings[work]),
                "successes": sum(turn.successes for turn in own),
                "failed": failures.total(),
                "failures": failures,
                "percentiles": np.percentile(milliseconds, PERCENTILES).tolist() if len(milliseconds) else None,
                "batches": {api: median(sizes) for api, sizes in batches.items()},
                "server_cores": median(turn.server_cores for turn in own),
                "client_cores": median(turn.client_cores for turn in own),
                "megabytes": max(turn.megabytes for turn in own),
                "shares": min((turn.shares for turn in own), key=lambda shares: shares[0] if shares else 0),
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
    """Throughput, ratios, shares of the ceiling."""
    title = f"Successful requests/s: {plan.users} users, payload {plan.payload}, {plan.duration} s, {plan.rounds} round"
    title += f"{'s' * (plan.rounds > 1)}\nMedian (least-most) of the rounds"
    columns = ("requests/s", "failed", "times\nthe first", "share of\nthe ceiling", "images\na batch")
    table = reports.table(title, "service", *columns)
    for row in rows:
        batches = "\n".join(f"{size:.1f}" for size in row["batches"].values()) or "-"
        shown = [spread(row["rates"], 1), str(row["failed"]), spread(row["over_first"], 2)]
        table.add_row(row["service"], *shown, spread(row["of_ceiling"], 2), batches)
    console.print(table)
    for work, rates in ceilings.items():
        console.print(f"The ceiling, {described(work)} without a server: {spread(rates, 1, ' ')} images/s")


def show_latencies(rows: list[dict], console: Console) -> None:
    """Latency percentiles over all rounds, and the cores and memory used."""
    table = reports.table(
        "Latency of the successful requests (closed loop), and what was used meanwhile",
        "service",
        *(f"p{percentile}\n(ms)" for percentile in PERCENTILES),
        *("server\n(cores)", "client\n(cores)", "server's\nmemory (MB)"),
    )
    for row in rows:
        percentiles = [f"{value:.0f}" for value in row["percentiles"]] if row["percentiles"] else ["-"] * 3
        used = [f"{row['server_cores']:.2f}", f"{row['client_cores']:.2f}", f"{row['megabytes']:.0f}"]
        table.add_row(row["service"], *percentiles, *used)
    console.print(table)
    for row in rows:
        if len(row["shares"]) > 1:
            parts = ", ".join(f"{share:.0%}" for share in row["shares"])
            console.print(
                f"{row['service']}: its workers did {parts} of the work, in the round where they differed most."
            )


def show_batching(rows: list[dict], bare: list[dict[int, float]], console: Console) -> None:
    """What batching gains the session alone, beside what it gains the service."""
    title = "Batching in the session alone, without a server"
    table = reports.table(title, "batch", "images/s", "times batch 1", words=0)
    for batch in bare[0]:
        rates = [round_[batch] for round_ in bare]
        gains = [round_[batch] / round_[1] for round_ in bare]
        table.add_row(str(batch), spread(rates, 1, " "), spread(gains, 2, " "))
    console.print(table)
    said = batching(rows, bare)
    if said is None:
        console.print("No batches were served: there is nothing to compare the session's gain with.")
        return
    console.print(
        f"Served: {said['served_gain']:.2f} times, at {said['mean_batch']:.1f} images a batch. The session alone gains "
        f"{said['bare_gain']:.2f} times there (between the sizes above), so the service keeps {said['share']:.2f} of it.",
        soft_wrap=True,
    )


def batching(rows: list[dict], bare: list[dict[int, float]]) -> dict | None:
    """The last service's gain over the first, and the session's at the mean batch that was served."""
    if not rows[-1]["batches"] or not rows[-1]["over_first"]:
        return None
    mean = max(rows[-1]["batches"].values())
    sizes = list(bare[0])
    gains = [median(round_[size] / round_[1] for round_ in bare) for size in sizes]
    bare_gain = float(np.interp(np.log(mean), np.log(sizes), gains))
    served = median(rows[-1]["over_first"])
    return {"served_gain": served, "mean_batch": mean, "bare_gain": bare_gain, "share": served / bare_gain}


def write(
    plan: Plan,
    turns: list[Turn],
    ceilings: dict[Work, list[float]],
    bare: list[dict[int, float]],
    taken_on: dict,
    output: Path,
) -> None:
    """Write table.csv, measurements.json, throughput.png and latency.png into a folder."""
    rows = summaries(plan, turns, ceilings)
    with whole_folder(output) as folder:
        reports.write_csv(folder / "table.csv", [flat(row) for row in rows])
        everything = {
            "machine": taken_on,
            "plan": plan._asdict() | {"folder": plan.folder.name, "variants": [one.name for one in plan.variants]},
            "ceilings": {described(work): rates for work, rates in ceilings.items()},
            "session_alone": bare,
            "batching": batching(rows, bare) if bare else None,
            "turns": [turn._asdict() for turn in turns],
        }
        (folder / "measurements.json").write_text(json.dumps(everything, indent=1))
        plot(plan, rows, taken_on, folder)


def flat(row: dict) -> dict:
    """A service's row of the CSV."""

    def three(name: str, values: list[float]) -> dict:
        parts = {"": median, "_least": min, "_most": max}
        return {f"{name}{part}": of(values) if values else None for part, of in parts.items()}

    return (
        {name: row[name] for name in ("service", "work", "successes", "failed")}
        | three("requests_per_s", row["rates"])
        | three("times_first", row["over_first"])
        | {"ceiling_per_s": median(row["ceilings"])}
        | three("share_of_ceiling", row["of_ceiling"])
        | {f"p{of}_ms": value for of, value in zip(PERCENTILES, row["percentiles"] or [None] * 3, strict=True)}
        | {"images_a_batch": " ".join(f"{api}={size:.2f}" for api, size in row["batches"].items())}
        | {name: row[name] for name in ("server_cores", "client_cores")}
        | {"server_megabytes": row["megabytes"]}
    )


def plot(plan: Plan, rows: list[dict], taken_on: dict, folder: Path) -> None:
    """Throughput with its spread below the ceiling, and latency percentiles."""
    import matplotlib.pyplot as plt

    names = [row["service"].replace(" ", "\n") for row in rows]
    places = np.arange(len(rows))
    taken = (
        f"{taken_on['cpu']}, {taken_on['used_cores']} cores, {plan.users} users, payload {plan.payload}, "
        f"{plan.rounds} x {plan.duration} s"
    )

    def save(figure, one, file: str, title: str) -> None:
        one.set(xticks=places, xticklabels=names)
        one.set_ylim(0, 1.2 * one.get_ylim()[1])  # room for the legend
        one.grid(axis="y", alpha=0.3)
        one.legend(fontsize="small", loc="upper right")
        reports.save_picture(figure, folder / file, f"{title}\n{taken}")

    size = (max(6.4, 1.3 * len(rows) + 1.5), 4.6)
    figure, one = plt.subplots(figsize=size, layout="constrained")
    middle = np.array([median(row["rates"]) for row in rows])
    ends = np.array([[min(row["rates"]), max(row["rates"])] for row in rows]).T
    one.bar(places, middle, 0.6, yerr=np.abs(ends - middle), capsize=4, label="served, least to most of the rounds")
    for place, row in zip(places, rows, strict=True):
        label = None if place else "ceiling: the same work without a server"
        one.hlines(median(row["ceilings"]), place - 0.5, place + 0.5, colors="black", linestyles="--", label=label)
    one.set_ylabel("successful requests/s")
    save(figure, one, "throughput.png", "Throughput")

    figure, one = plt.subplots(figsize=size, layout="constrained")
    for i, percentile in enumerate(PERCENTILES):
        heights = [row["percentiles"][i] if row["percentiles"] else 0 for row in rows]
        one.bar(places + 0.27 * (i - 1), heights, 0.25, label=f"p{percentile}")
    one.set_ylabel("milliseconds")
    save(figure, one, "latency.png", "Latency of the successful requests, closed loop")
