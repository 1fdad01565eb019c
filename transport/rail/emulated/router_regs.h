// Configuration spaces of a USB4 host router as its model lays them out: offsets in dwords, bits,
// and values. Names are those of the USB4 specification, which the kernel's
// drivers/thunderbolt/tb_regs.h uses too.
#pragma once

#include <cstdint>

namespace tbt::rail::emulated {

// ---- router space

enum RouterDword : uint32_t {
  kRouterCs0 = 0,    // 15:0 vendor, 31:16 device
  kRouterCs1 = 1,    // 7:0 first capability, 13:8 upstream adapter, 19:14 max adapter, 22:20 depth
  kRouterCs2 = 2,    // route, low
  kRouterCs3 = 3,    // 23:0 route, high; 31 valid: the router is enumerated
  kRouterCs4 = 4,    // 7:0 notification time-out, 15:8 version of the manager, 31:24 USB4 version
  kRouterCs5 = 5,    // what the manager wants
  kRouterCs6 = 6,    // what the router is
  kRouterCs7 = 7,    // unique id, two dwords
  kRouterCs9 = 9,    // data of a router operation, 16 dwords
  kRouterCs25 = 25,  // its metadata
  kRouterCs26 = 26,  // 15:0 opcode, 29:24 status, 30 not supported, 31 valid (busy)
  kRouterTmu = 32,   // time management, 26 dwords
  kRouterDwords = 58,
};
inline constexpr uint32_t kUpstreamShift = 8, kMaxAdapterShift = 14;
inline constexpr uint32_t kRouterDepthMask = 7u << 20;
inline constexpr uint32_t kRouterValid = 1u << 31;               // CS3
inline constexpr uint32_t kRouterRouteHighMask = 0xffffff;       // CS3
inline constexpr uint32_t kUsb4VersionShift = 24;                // CS4
inline constexpr uint32_t kUsb4V1 = 0x20, kUsb4V2 = 0x40;        // CS4
inline constexpr uint32_t kRouterSleep = 1u << 0;                // CS5
inline constexpr uint32_t kRouterConfigurationValid = 1u << 31;  // CS5
inline constexpr uint32_t kRouterCs5Writable = 0x8780'000f;
inline constexpr uint32_t kRouterSleepReady = 1u << 0;           // CS6
inline constexpr uint32_t kRouterNoThunderbolt3 = 1u << 1;       // CS6
inline constexpr uint32_t kRouterReady = 1u << 24;               // CS6
inline constexpr uint32_t kRouterConfigurationReady = 1u << 25;  // CS6
inline constexpr uint32_t kOperationDwords = 16;
inline constexpr uint32_t kOperationOpcodeMask = 0xffff;      // CS26
inline constexpr uint32_t kOperationNotSupported = 1u << 30;  // CS26
inline constexpr uint32_t kOperationValid = 1u << 31;         // CS26
inline constexpr uint32_t kTmuUnidirectional = 1u << 30;      // TMU_RTR_CS_0
inline constexpr uint32_t kTmuCs0Writable = 0x0fff'0000;
inline constexpr uint32_t kTmuCs3Writable = 0xffff'0000;  // 15:0 are of the clock
inline constexpr uint32_t kTmuPostTime = 24;              // and 25: 0 when the time has been taken

enum RouterOperation : uint32_t {
  kDromRead = 0x24,
  kNvmSectorSize = 0x25,
  kBufferAllocation = 0x33,
};
// Of its answer: 15:0 which parameter, 31:16 value.
enum BufferParameter : uint32_t { kBaMinDpAux = 2, kBaMinDpMain = 3, kBaMaxHi = 5 };

// ---- adapter space

enum CapabilityId : uint32_t { kCapabilityLane = 1, kCapabilityTmu = 3, kCapabilityUsb4Port = 6 };

enum AdapterDword : uint32_t {
  kAdapterCs0 = 0,  // as the router's
  kAdapterCs1 = 1,  // 7:0 first capability, 18:8 counter sets, 19 counters supported
  kAdapterCs2 = 2,  // 23:0 type
  kAdapterCs3 = 3,  // 25:20 number
  kAdapterCs4 = 4,  // 9:0 buffers without flow control, 29:20 buffers, 31 locked
  kAdapterCs5 = 5,  // 10:0 max HopID in, 21:11 out, 28:22 link credits, 31 no hot-plug events
  kAdapterBasicDwords = 8,
  kLaneCs0 = 16,     // 19:16 speeds, 25:20 widths that it can
  kLaneCs1 = 17,     // 3:0 target speed, 5:4 target width, 19:16 speed, 25:20 width, 29:26 state
  kAdapterTmu = 24,  // 10 dwords
  kPortCs0 = 40,     // only lane 0 has this capability
  kPortCs1 = 41,     // a sideband command
  kPortCs2 = 42,     // its data, 16 dwords
  kPortCs18 = 58,    // what the link is
  kPortCs19 = 59,    // what the manager wants of the port
  kAdapterDwords = 60,
};
inline constexpr uint32_t kLane1Dwords = kPortCs0;
inline constexpr uint32_t kTypeLane = 1, kTypeNhi = 2;             // CS2
inline constexpr uint32_t kAdapterNumberShift = 20;                // CS3
inline constexpr uint32_t kBuffersShift = 20;                      // CS4
inline constexpr uint32_t kBuffersMask = 0x3ffu << kBuffersShift;  // CS4
inline constexpr uint32_t kNfcBuffersMask = 0x3ff;                 // CS4
inline constexpr uint32_t kAdapterLock = 1u << 31;                 // CS4
inline constexpr uint32_t kMaxHopOutShift = 11;                    // CS5
inline constexpr uint32_t kLinkCreditsMask = 0x7fu << 22;          // CS5
inline constexpr uint32_t kNoHotPlug = 1u << 31;                   // CS5, DHP

inline constexpr uint32_t kSpeedGen2 = 8, kSpeedGen3 = 4, kSpeedGen4 = 2;
inline constexpr uint32_t kWidthSingle = 1, kWidthDual = 2;
inline constexpr uint32_t kSpeedShift = 16, kWidthShift = 20;  // LANE_ADP_CS_0, _1
inline constexpr uint32_t kTargetSpeedGen3 = 0xc;              // LANE_ADP_CS_1
inline constexpr uint32_t kTargetWidthShift = 4;               // 1 single, 3 dual
inline constexpr uint32_t kTargetWidthMask = 3u << kTargetWidthShift;
inline constexpr uint32_t kTargetSingle = 1u << kTargetWidthShift;
inline constexpr uint32_t kTargetDual = 3u << kTargetWidthShift;
inline constexpr uint32_t kLaneDisable = 1u << 14;
inline constexpr uint32_t kLaneBond = 1u << 15;
inline constexpr uint32_t kLaneStateShift = 26;
inline constexpr uint32_t kLaneDisabled = 0, kLaneCl0 = 2, kLaneUnplugged = 7;
inline constexpr uint32_t kLaneCs1Writable = 0x4000'dcff;

inline constexpr uint32_t kSidebandRegisterMask = 0xff;  // PORT_CS_1
inline constexpr uint32_t kSidebandTargetShift = 16, kSidebandTargetMask = 7;
inline constexpr uint32_t kSidebandRouter = 0;  // of the targets: this port; others are beyond it
inline constexpr uint32_t kSidebandWrite = 1u << 24;
inline constexpr uint32_t kSidebandNoResponse = 1u << 25;
inline constexpr uint32_t kSidebandResultCode = 1u << 26;
inline constexpr uint32_t kSidebandPending = 1u << 31;
inline constexpr uint32_t kPortDataDwords = 16;
inline constexpr uint32_t kBondingEnabled = 1u << 8;  // PORT_CS_18
inline constexpr uint32_t kPortReset = 1u << 0;       // PORT_CS_19
inline constexpr uint32_t kPortConfigured = 1u << 3, kPortInterDomain = 1u << 4;
inline constexpr uint32_t kPortCs19Writable = 0x0007'0019;  // starting asymmetry ends at once

// Registers behind a sideband command, and opcodes: four letters, the first one lowest.
inline constexpr uint32_t kSidebandVendor = 0, kSidebandProduct = 1, kSidebandOpcode = 8;
inline constexpr uint32_t kSidebandMetadata = 9, kSidebandData = 18;
inline constexpr uint32_t kSidebandEnumerate = 0x4d55'4e45;     // "ENUM"
inline constexpr uint32_t kSidebandOffline = 0x4e45'534c;       // "LSEN"
inline constexpr uint32_t kSidebandNotSupported = 0x444d'4321;  // "!CMD"

// ---- path space: two dwords per HopID, here as one word, the first dword low

inline constexpr uint32_t kNextHopMask = 0x7ff;
inline constexpr uint32_t kEgressShift = 11, kEgressMask = 0x3f;
inline constexpr uint32_t kCreditsShift = 17, kCreditsMask = 0x7f;
inline constexpr uint64_t kPathEnable = 1ull << 31;
inline constexpr uint64_t kDropPackets = 1ull << 43;
inline constexpr uint64_t kIngressFlowControl = 1ull << 56, kEgressFlowControl = 1ull << 57;
inline constexpr uint64_t kIngressShared = 1ull << 58;
inline constexpr uint64_t kPending = 1ull << 60;
inline constexpr uint64_t kPathWritable = 0x0fff'ff0f'81ff'ffff;
// What the vendor of a protocol adapter defines there: a manager must leave it as it is.
inline constexpr uint64_t kVendorDefined =
    uint64_t{kCreditsMask} << kCreditsShift | kIngressFlowControl | kIngressShared;

}  // namespace tbt::rail::emulated
