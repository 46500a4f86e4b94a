//! soon
pub struct Lab;
pub struct LabConfig;
