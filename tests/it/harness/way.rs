//! Which way requests go in this run of the suite: the one that the configuration says, or, with
//! `TOLLGATE_TEST_DIRECT=false` in the environment, all by Pingora's loop.
//!
//! What a client, a backend or an operator sees is the same, but for what is listed here. Pools whose `protocol` is not
//! `http/1.1` never go by the loop, so their tests say the same in every run.

const CHUNKS: &str = "the loop passes a body without a length on in chunks, however soon its end comes";
const ACKNOWLEDGED: &str = "the loop reads on without acknowledging a header at once";
const HELD: &str = "the loop holds half a MiB for each stream whose answer nobody takes";

const TRAILERS: &str = "the loop lets trailers end where they come from";

/// The tests that see a difference that is meant, and why there is one.
const DIFFERS: &[(&str, &str)] = &[
    ("bodies::a_chunked_body_that_is_there_has_a_length", CHUNKS),
    ("told_lengths::chunks_that_are_there_have_a_length", CHUNKS),
    ("told_lengths::streams_whose_body_is_there_tell_its_length", CHUNKS),
    ("told_lengths::the_limit_of_bodies_holds", CHUNKS),
    ("delayed_acknowledgement::a_body_that_comes_apart_from_its_header_comes_at_once", ACKNOWLEDGED),
    ("delayed_acknowledgement::one_in_chunks_does_so_too", ACKNOWLEDGED),
    ("http2_uploads::answers_that_nobody_takes_are_bounded_for_each_connection", HELD),
    ("untaken_sections::sections_of_http1_for_a_client_of_http2_that_reads_nothing", HELD),
    ("trailers::those_of_a_request_in_chunks_reach_the_backend", TRAILERS),
    ("trailers::those_of_a_stream_reach_the_backend", TRAILERS),
    ("trailers::those_of_an_answer_in_chunks_reach_every_client_that_has_them", TRAILERS),
    ("trailers::who_takes_trailers_says_so_to_the_backend", TRAILERS),
];

/// Whether all requests go by Pingora's loop.
pub(crate) fn by_loop() -> bool {
    std::env::var("TOLLGATE_TEST_DIRECT").is_ok_and(|direct| direct == "false")
}

/// The configuration with what this run says of the way, unless it says that itself.
pub(crate) fn with_way(yaml: &str) -> String {
    let says = yaml.lines().any(|line| line.starts_with("direct:"));
    let lines = yaml.lines().any(|line| line.starts_with("listeners:") || line.starts_with("upstreams:"));
    if !by_loop() || says || !lines {
        return yaml.to_owned();
    }
    format!("{}\ndirect: false\n", yaml.trim_end_matches('\n'))
}

/// Whether the calling test sees a difference that is meant, so that it has nothing to say in this run.
#[track_caller]
pub(crate) fn differs() -> bool {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let listed = DIFFERS.iter().find(|(test, _)| *test == name);
    let (test, why) = listed.unwrap_or_else(|| panic!("{name} is not in the list of what differs"));
    if by_loop() {
        println!("{test} is skipped: {why}");
    }
    by_loop()
}
