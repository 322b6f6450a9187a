//! Building everything, services and their order, signals, drain.
