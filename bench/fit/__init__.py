"""The memory estimate, held against what real engines reported; and what one answer costs."""
