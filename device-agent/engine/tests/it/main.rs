//! What the engine does, tried from outside.
