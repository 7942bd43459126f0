"""What a trained agent is worth and where it goes: evaluation, recordings, open-loop pictures, statistics. Trains
nothing."""
