"""The ground floor: errors, options, files, runs, checkpoints, logs, reports and plots."""
