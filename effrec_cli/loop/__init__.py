"""The parts of the engine, each with one job."""
