// Who we are on a cable to a host that runs thunderbolt-net only. Everything follows from the
// router's UUID, the port and the host's number, so that it is the same at every start.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

namespace tbt::ip {

using Mac = std::array<uint8_t, 6>;
using Ipv4 = std::array<uint8_t, 4>;
using Ipv6 = std::array<uint8_t, 16>;

// 169.254.84.N, where N is the host's number + 1: link-local (RFC 3927), so it means the same to
// nobody else than the host at the other end of the cable.
inline constexpr Ipv4 kIpv4Network = {169, 254, 84, 0};

struct Identity {
  Mac mac{};    // locally administered
  Ipv4 ipv4{};  // the one that is answered for
  Ipv6 ipv6{};  // fe80:: and the MAC address (RFC 4291, appendix A)
};

Identity identity_of(std::span<const uint8_t, 16> router, uint32_t port, uint32_t host) noexcept;

std::string mac_text(const Mac& mac);
std::string ipv4_text(const Ipv4& address);

}  // namespace tbt::ip
