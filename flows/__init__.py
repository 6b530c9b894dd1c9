"""The flows, and the command line; wherever one runs, its log is short about foreseen errors."""

from flows import run_log

run_log.install()
