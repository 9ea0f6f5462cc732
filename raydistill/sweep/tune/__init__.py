"""Ray Tune's side: its searcher, trial scheduler, callback and stopper, which only translate."""
