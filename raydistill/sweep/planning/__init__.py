"""From the sweep file to trials: what each draws, its schedule, its run, its share of the machines."""
