"""What came of the attacks, as tables."""

from collections.abc import Callable

ATTACKS = {  # of docs/results/chaos.json, in words
    "images": (
        "photos with flipped bits, cut off, with pieces doubled, removed, zeroed or swapped, of all common formats"
    ),
    "tiff_tags": "TIFF tags of another type, count or value",
    "states": "`last.pt` with flipped bits, zeroed pages or cut off; half of them with the state before it damaged too",
    "caches": "caches of resized photos and embeddings with the same damage",
    "pickles": "weight files and states that run a command when they are unpickled",
    "command_lines": "odd flags and values, for all scripts and most tools",
    "kills": "SIGKILL at random moments of the three methods and of inference, then on to the end",
    "full_disks": "a disk that gets full under training, inference, metrics and tools, then one with room",
    "two_at_once": "two trainings of one name, two enhancements into one folder",
    "special_files": "pipes, devices, links to themselves: as photos, weights, configs, lists",
    "long_run": "steps of one training; flat memory, no file left open",
}


def reliability(results: dict, where: Callable[[dict], str]) -> str:
    """The tables of docs/reliability.md. where: hardware and commit of results, in words."""
    lines = [
        "| what was injected | times | survived | crashed | hung | lost | executed |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = {name: results[name] for name in ATTACKS if name in results}
    for name, row in rows.items():
        cells = " | ".join(f"{row[kind]:,}" for kind in ("injected", "survived", "crashed", "hung", "lost", "executed"))
        lines.append(f"| {ATTACKS[name]} | {cells} |")
    lines += ["", "| | how it was survived | hung means over | took |", "|---|---|---|---|"]
    for name, row in rows.items():
        outcomes = "; ".join(f"{what} ({count:,})" for what, count in row["outcomes"].items())
        lines.append(f"| {name} | {outcomes} | {row['limit']:.0f} s | {row['seconds']:.0f} s |")
    commands = dict.fromkeys(row["command"] for row in rows.values())
    text = f"Seeds from {', '.join(str(seed) for seed in dict.fromkeys(row['seed'] for row in rows.values()))}; "
    text += f"{'commands' if len(commands) > 1 else 'command'}: {', '.join(f'`{command}`' for command in commands)}"
    if len(commands) == 1:
        text += f", {max(row['after'] for row in rows.values()) / 60:.0f} minutes"
    text += f"; {where(rows)}."
    return "\n".join(lines) + f"\n\n{text}"
