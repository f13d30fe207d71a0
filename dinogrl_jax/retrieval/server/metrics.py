"""What the server counts, as Prometheus reads it."""

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
START = "dinogrl_jax"


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = {"namespace": START, "registry": self.registry}
        self.requests = Counter(
            "requests", "Answers by path and status of HTTP", ["path", "status"], **own
        )
        self.seconds = Histogram(
            "stage_seconds",
            "Of a search: decode, embed (waiting included), search",
            ["stage"],
            buckets=SECONDS,
            **own,
        )
        self.batch = Histogram(
            "batch_clips",
            "Clips that went through the model together",
            buckets=(1, 2, 4, 8, 16, 32),
            **own,
        )
        self.labels = Counter("labels", "What people said", ["label"], **own)
        self.tracklets = Gauge("tracklets", "In the gallery, when it was last looked at", **own)

    def text(self) -> bytes:
        return generate_latest(self.registry)
