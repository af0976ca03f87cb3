// The default: the smallest capacities of all boards, so that ordinary tests meet every limit.
Board {
    name: "host",
    memory: 13 * MIB,
    suites: Suites::AesFirst,
    pre_auth: 4,
    // One address cannot keep the others from knocking.
    pre_auth_per_address: 3,
    // Eight readers and two writers; ten viewers.
    clients: Clients { mqtt: 10, chamber: 10, rtsp: 8, ftp: 4, http: 6 },
    mqtt: Mqtt {
        // A signed `project_file` with its path is 4 KiB; `app_cert_install` is twice that.
        inbox: 16 * KIB,
        outbox: 4 * KIB,
        ring: 8,
        requests: 4,
        // Every reader may be in the middle of a different report.
        small: Shape { count: 16, size: KIB },
        // The largest full state on record is 35.8 KiB (H2D, indented).
        large: Shape { count: 6, size: 40 * KIB },
    },
    chamber: Chamber {
        // 1280×720: 40 to 120 KiB were seen.
        picture: 128 * KIB,
        ring: 2,
    },
    rtsp: Rtsp {
        // 1080p at a few Mbit/s: key frames of 60 to 150 KiB.
        picture: 64 * KIB,
        ring: 128,
    },
}
