// One line of text for a frame, for traces and `tbt dump`:
// "rc send only imm qp 0x4001 psn 7 ack-req imm 0x1 lid 64->128 64 B".
#pragma once

#include <string>

#include "wire/frame.h"
#include "wire/packet.h"

namespace tbt::wire {

std::string describe(const ParsedPacket& packet);
std::string describe(const RawFrame& head, const RawFrame& payload);

}  // namespace tbt::wire
