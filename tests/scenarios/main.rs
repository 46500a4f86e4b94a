//! Scenarios in the order of the specifications' clauses; the folder tree is their table of contents.
//!
//! A ladder that reads well is kept as a golden; everything else is asserted in words.

mod rfc3329 {
    mod sec_agree;
}

mod ts24229 {
    #[path = "5_1_1.rs"]
    mod c5_1_1;
    #[path = "5_2_2.rs"]
    mod c5_2_2;
    #[path = "5_2_2_1.rs"]
    mod c5_2_2_1;
    #[path = "5_2_2_2.rs"]
    mod c5_2_2_2;
    #[path = "5_2_3.rs"]
    mod c5_2_3;
    #[path = "5_2_6.rs"]
    mod c5_2_6;
    #[path = "5_3_1.rs"]
    mod c5_3_1;
    #[path = "5_3_2.rs"]
    mod c5_3_2;
    #[path = "5_4_1_2.rs"]
    mod c5_4_1_2;
    #[path = "5_4_1_2_1a.rs"]
    mod c5_4_1_2_1a;
    #[path = "5_4_1_2_cases.rs"]
    mod c5_4_1_2_cases;
    #[path = "5_4_1_4.rs"]
    mod c5_4_1_4;
    #[path = "5_4_1_5.rs"]
    mod c5_4_1_5;
    #[path = "5_4_1_7.rs"]
    mod c5_4_1_7;
    #[path = "5_4_2.rs"]
    mod c5_4_2;
    #[path = "5_4_3.rs"]
    mod c5_4_3;
    #[path = "7_7.rs"]
    mod c7_7;
}

mod ts33203 {
    #[path = "annex_h.rs"]
    mod annex_h;
    #[path = "annex_n.rs"]
    mod annex_n;
    #[path = "7_1.rs"]
    mod c7_1;
    #[path = "7_4.rs"]
    mod c7_4;
}

mod ts29228 {
    #[path = "6_1_3.rs"]
    mod c6_1_3;
    #[path = "6_3.rs"]
    mod c6_3;
}

mod restart {
    mod pcscf;
    mod scscf;
}

mod calls {
    mod basic;
    mod registration;
}

mod overload;
mod support;
