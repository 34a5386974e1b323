"""Which plan: policies that play in one environment under a budget."""
