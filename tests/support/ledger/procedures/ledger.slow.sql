SELECT sleep_ms(@ms) AS slept_ms
