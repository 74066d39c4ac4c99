//! The case table on the host build of the decision and on the loaded programs: verdict, exact bytes and all counters.
//! Then the same for stories of policy, for random worlds of it, for frames that nobody thought of, and for many flows over
//! several next hops: both must agree. And what a flow remembers of its way must change nothing but the time it takes.

mod any_frame;
mod events;
mod limits;
mod next_hops;
mod older;
mod policy;
mod recorded;
mod runs;
mod table;
mod ways;
mod worlds;
