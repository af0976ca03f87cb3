//! What is known about the printer.

pub mod camera;
pub mod model;
pub mod status;
pub mod upstream;
