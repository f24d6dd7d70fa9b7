//! Decides for all engines of a process alike: reports come in, mail goes out.

mod health;

pub use health::{HealthOwner, Mail, Report};
