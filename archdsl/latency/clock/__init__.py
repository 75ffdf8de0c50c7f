"""How a time is taken and judged: runs, sittings, intervals, and what else the machine was doing."""
