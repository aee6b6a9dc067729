"""Makes the cluster show what the rows want: lease, load, observe, plan, act, record."""
