use super::*;

#[test]
fn answers_are_kept_for_a_client_as_long_as_it_takes_some() {
    let mut untaken = Untaken::default();
    let looks = u32::try_from(CLIENT_TIMEOUT.as_secs()).expect("a minute");
    assert!((1..=200).all(|second| untaken.goes_on(second, true)));
    assert!((0..looks).all(|_| untaken.goes_on(200, true)));
    assert!(!untaken.goes_on(200, true));
    assert!(untaken.goes_on(201, true));
    assert!(untaken.ends() && !untaken.ends() && untaken.over);
    assert!(!Untaken::default().ends(), "nothing was waited for");
}

#[test]
fn what_is_no_answer_is_waited_for_only_so_long() {
    let mut untaken = Untaken::default();
    assert_eq!((1..).find(|second| !untaken.goes_on(*second, false)), Some(CLIENT_TIMEOUT.as_secs() + 1));
}
