//! The rig that tests, demo and bench share.
