"""The Open Charge Alliance's OCPP 1.6 test cases for a central system: number, title, what must happen."""

from dataclasses import dataclass

SESSIONS = "Boot, sessions, authorization cache"
REMOTE = "Remote actions, reset, unlock, configuration"
UNHAPPY = "Refusals, failures, offline behaviour, data transfer"
LOCAL_LIST = "Local authorization list"
FIRMWARE = "Firmware and diagnostics"
RESERVATION = "Reservation"
TRIGGER = "Remote trigger"
SMART_CHARGING = "Smart charging"
SECURITY = "Security"


@dataclass(frozen=True)
class Case:
    """`operator`: the central system acts because an operator asks it to (here: over REST)."""

    id: str
    title: str
    group: str
    expected: str
    operator: bool = False


def _group(name: str, *rows: tuple[str, str, str]) -> tuple[Case, ...]:
    """An `M ` before what is expected marks what an operator sets off."""
    return tuple(
        Case(f"TC_{number}", title, name, expected.removeprefix("M "), operator=expected.startswith("M "))
        for number, title, expected in rows
    )


CASES: tuple[Case, ...] = (
    *_group(
        SESSIONS,
        ("001", "Cold Boot Charge Point", "boot accepted, statuses and heartbeats answered"),
        ("003", "Regular Charging Session - Plugin First", "tag and start accepted"),
        (
            "004_1",
            "Regular Charging Session - Identification First",
            "tag accepted before plug-in, start accepted",
        ),
        ("004_2", "Identification First - ConnectionTimeOut", "statuses answered, no transaction"),
        ("005_1", "EV Side Disconnected", "stop with reason EVDisconnected booked"),
        ("007", "Regular Start Charging Session - Cached Id", "start without Authorize accepted"),
        ("061", "Clear Authorization Data in Authorization Cache", "M ClearCache sent, Accepted passed on"),
    ),
    *_group(
        REMOTE,
        ("010", "Remote Start - Cable Plugged in First", "M remote start, then a session"),
        ("011_1", "Remote Start - Remote Start First", "M remote start before plug-in, then a session"),
        ("011_2", "Remote Start - Time Out", "M remote start, no cable is plugged in, no transaction"),
        ("012", "Remote Stop Charging Session", "M stop by transaction id, reason Remote booked"),
        ("013", "Hard Reset", "M Reset Hard, boot accepted again"),
        ("014", "Soft Reset", "M Reset Soft, boot accepted again"),
        ("017_1", "Unlock connector - no session, not fixed cable", "M Unlocked passed on"),
        ("017_2", "Unlock connector - no session, fixed cable", "M NotSupported passed on"),
        (
            "018_1",
            "Unlock connector - with charging session",
            "M Unlocked, stop with reason UnlockCommand booked",
        ),
        ("019_1", "Retrieve all configuration keys", "M GetConfiguration without keys, whole list passed on"),
        (
            "019_2",
            "Retrieve specific configuration key",
            "M SupportedFeatureProfiles asked for and passed on",
        ),
        ("021", "Change/set configuration", "M MeterValueSampleInterval = 60 set"),
    ),
    *_group(
        UNHAPPY,
        ("023_1", "Start session - Authorize invalid", "Invalid"),
        ("023_2", "Start session - Authorize expired", "Expired"),
        ("023_3", "Start session - Authorize blocked", "Blocked"),
        ("024", "Start session - lock failure", "Faulted with ConnectorLockFailure taken"),
        ("026", "Remote Start - Rejected", "M Rejected passed on"),
        ("028", "Remote Stop - Rejected", "M Rejected passed on"),
        ("030", "Unlock connector - unlock failure", "M UnlockFailed passed on"),
        ("031", "Unlock connector - unknown connector", "M NotSupported passed on"),
        (
            "032_1",
            "Power failure boot - configured to stop transactions",
            "boot accepted, stop with PowerLoss booked",
        ),
        ("037_1", "Offline start - valid IdTag", "late start accepted"),
        ("037_3", "Offline start - invalid IdTag", "late start Invalid, stop with DeAuthorized booked"),
        ("039", "Offline transaction", "late start and stop booked"),
        ("040_1", "Configuration keys - NotSupported", "M NotSupported passed on"),
        ("040_2", "Configuration keys - invalid value", "M Rejected passed on"),
        ("064", "Data transfer to a Central System", "an unknown vendor is told so"),
    ),
    *_group(
        LOCAL_LIST,
        ("042_1", "Get Local List Version - not supported", "M version -1 passed on"),
        ("042_2", "Get Local List Version - empty", "M version 0 passed on"),
        ("043_1", "Send Local List - NotSupported", "M NotSupported passed on"),
        ("043_3", "Send Local List - Failed", "M Failed passed on"),
        ("043_4", "Send Local List - Full", "M full list sent, each entry with its idTagInfo"),
        ("043_5", "Send Local List - Differential", "M one tag sent under a higher version"),
    ),
    *_group(
        FIRMWARE,
        ("044_1", "Firmware Update - download and install", "M every status up to Installed answered"),
        ("044_2", "Firmware Update - download failed", "M DownloadFailed answered"),
        ("044_3", "Firmware Update - installation failed", "M InstallationFailed answered"),
        ("045_1", "Get Diagnostics", "M Uploading and Uploaded answered"),
        ("045_2", "Get Diagnostics - upload failed", "M UploadFailed answered"),
    ),
    *_group(
        RESERVATION,
        ("046", "Reservation of a connector - transaction", "M start under the reservation accepted"),
        ("047", "Reservation of a connector - expire", "M Reserved, later Available"),
        ("048_1", "Reservation - Faulted", "M Faulted passed on"),
        ("048_2", "Reservation - Occupied", "M Occupied passed on"),
        ("048_3", "Reservation - Unavailable", "M made inoperative, then Unavailable passed on"),
        ("048_4", "Reservation - Rejected", "M Rejected passed on"),
        ("049", "Reservation of a Charge Point", "M connector 0 reserved"),
        ("051", "Cancel reservation", "M the same reservation cancelled"),
        ("052", "Cancel reservation - Rejected", "M Rejected passed on"),
        ("053", "Use a reserved connector with parentIdTag", "M another tag of the same parent charges"),
    ),
    *_group(
        TRIGGER,
        ("054", "Trigger Message", "M five messages triggered, each answered"),
        ("055", "Trigger Message - Rejected", "M Rejected passed on"),
    ),
    *_group(
        SMART_CHARGING,
        ("056", "Central Smart Charging - TxDefaultProfile", "M absolute default profile sent"),
        ("057", "Central Smart Charging - TxProfile", "M profile for the running transaction sent"),
        (
            "059",
            "Remote Start with Charging Profile",
            "M remote start carries a TxProfile without transaction",
        ),
        ("066", "Get Composite Schedule", "M duration and unit asked for, schedule passed on"),
        ("067", "Clear Charging Profile", "M three profiles set, cleared by id, by criteria, all"),
    ),
    *_group(
        SECURITY,
        (
            "073",
            "Update password for HTTP Basic authentication",
            "M new AuthorizationKey taken and asked for",
        ),
        ("074", "Update Charge Point certificate by request", "M CSR triggered, signed, used"),
        ("075_1", "Install certificate - ManufacturerRootCertificate", "M installed and listed"),
        ("075_2", "Install certificate - CentralSystemRootCertificate", "M installed and listed"),
        ("076", "Delete a specific certificate", "M deleted by the hash data it was listed with"),
        ("077", "Invalid ChargePointCertificate security event", "M Rejected and the event taken"),
        ("078", "Invalid CentralSystemCertificate security event", "M Rejected and the event taken"),
        ("079", "Get Security Log", "M Uploading and Uploaded answered"),
        ("080", "Secure Firmware Update", "M signed firmware, every status answered"),
        ("081", "Secure Firmware Update - invalid signature", "M InvalidSignature answered"),
        (
            "083",
            "Upgrade security profile - Accepted",
            "M higher profile taken, lower one refused from then on",
        ),
        ("085", "Basic authentication - valid credentials", "no credentials refused, right ones let in"),
        ("086", "TLS - server-side certificate", "TLS 1.2, required suites, fit certificate"),
        ("087", "TLS - client-side certificate", "client certificate asked for and checked"),
        ("088", "WebSocket sub-protocol negotiation", "unknown one refused, ours chosen"),
    ),
)

# What is not there yet, and why. A case stands here or has a test, never both.
PENDING: dict[str, str] = {}
