"""What holds for all tests: none is measured against the clock, and none draws other examples than the day before."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "sora_spec", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sora_spec")
