"""What a training tells while it runs: lines, charts, a bar and notes."""
