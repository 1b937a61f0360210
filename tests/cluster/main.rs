//! A cluster of real processes, broken in every way that processes and networks break.
