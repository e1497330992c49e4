"""How far work is: a bar on a terminal, a line now and then in a log."""


def duration(seconds: float | None) -> str:
    """Seconds in words: "48 s", "12 min 5 s", "3 h 20 min"."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
