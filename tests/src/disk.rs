//! A disk that is soon full.
