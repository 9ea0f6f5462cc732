"""Changes to the sweep file of tests: its trials branch off a trunk."""

TRUNK = ("trunk", {"epochs": 8, "branches": 4, "initial_sparsity": 0.2, "final_sparsity": 0.9})
BRANCHES = [
    TRUNK,
    ("search", {"trunk.sparsity": {"choice": [0.4, 0.75, 0.9]}}),
    ("schedule", {"version": 1}),
    ("num_samples", 9),
]
