// The texts between process and daemon: round trips, and refusal of everything that is not one of
// them.
#include "fabric/attach_protocol.h"

#include <gtest/gtest.h>

#include "fabric/json_text.h"

namespace tbt::fabric {
namespace {

TEST(AttachProtocol, RequestsComeBackAsTheyWere) {
  for (const Operation operation : {Operation::kAttach, Operation::kStatus}) {
    Request out;
    ASSERT_TRUE(decode_request(encode_request({.operation = operation}), out));
    EXPECT_EQ(out.operation, operation);
  }
  Request in{.operation = Operation::kCable, .cable = 5};
  in.settings.values[kDropPpm] = 1000;
  in.settings.values[kPlugged] = 0;
  Request out;
  ASSERT_TRUE(decode_request(encode_request(in), out));
  EXPECT_EQ(out.cable, 5u);
  EXPECT_EQ(out.settings.values, in.settings.values);
  in = {.operation = Operation::kGid, .port = 3, .gid = {0xfe, 0x80, 1}, .present = false};
  ASSERT_TRUE(decode_request(encode_request(in), out));
  EXPECT_EQ(out.port, 3u);
  EXPECT_EQ(out.gid, in.gid);
  EXPECT_FALSE(out.present);
}

TEST(AttachProtocol, AGidHasThirtyTwoDigits) {
  Request out;
  const std::string digits(32, 'a');
  const auto request = [](const std::string& gid, int port = 0) {
    return R"({"version":1,"op":"gid","present":1,"port":)" + std::to_string(port) +
           R"(,"gid":")" + gid + "\"}";
  };
  EXPECT_TRUE(decode_request(request(digits), out));
  EXPECT_EQ(out.gid[15], 0xaa);
  for (const std::string& wrong : {digits + "a", digits.substr(1), "-" + digits.substr(1)}) {
    EXPECT_EQ(decode_request(request(wrong), out).code(), EINVAL) << wrong;
  }
  EXPECT_EQ(decode_request(request(digits, 16), out).code(), EINVAL);
}

TEST(AttachProtocol, RepliesComeBackAsTheyWere) {
  Reply reply;
  ASSERT_TRUE(decode_reply(encode_grant({.slot = 63, .host = 2, .hosts = 4}),
                           Expected::kAttachGrant, reply));
  EXPECT_EQ(reply.code, 0);
  EXPECT_EQ(reply.grant.slot, 63);
  EXPECT_EQ(reply.grant.host, 2u);
  EXPECT_EQ(reply.grant.hosts, 4u);
  EXPECT_FALSE(reply.grant.vfio);
  const rail::nhi::PciIdentity controller{0x8086, 0x5781};
  ASSERT_TRUE(decode_reply(encode_grant({.slot = 1, .host = 7, .vfio = controller}),
                           Expected::kAttachGrant, reply));
  EXPECT_EQ(reply.grant.slot, 1);
  EXPECT_EQ(reply.grant.host, 7u);
  EXPECT_EQ(reply.grant.hosts, 0u);
  EXPECT_EQ(reply.grant.vfio, controller);
  EXPECT_FALSE(reply.grant.own);
  const rail::nhi::DmaRange own{0x1100000000, 0x100000000};
  ASSERT_TRUE(decode_reply(encode_grant({.slot = 1, .host = 7, .vfio = controller, .own = own}),
                           Expected::kAttachGrant, reply));
  EXPECT_EQ(reply.grant.own, own);
  ASSERT_TRUE(decode_reply(encode_refusal(EAGAIN, "full"), Expected::kAttachGrant, reply));
  EXPECT_EQ(reply.code, EAGAIN);
  EXPECT_EQ(reply.text, "full");
  ASSERT_TRUE(decode_reply(encode_done(), Expected::kDone, reply));
  EXPECT_EQ(reply.code, 0);
}

TEST(AttachProtocol, EveryShortenedRequestIsRefused) {
  Request in{.operation = Operation::kCable, .cable = 5};
  in.settings.values[kLatencyNs] = 2000;
  const std::string text = encode_request(in);
  for (size_t n = 0; n < text.size(); n++) {
    Request out;
    EXPECT_FALSE(decode_request(text.substr(0, n), out)) << text.substr(0, n);
  }
}

TEST(AttachProtocol, WhatIsNoRequestIsRefusedWithItsReason) {
  const struct {
    const char* text;
    int code;
  } cases[] = {
      {"", EPROTO},
      {"[]", EPROTO},
      {"null", EPROTO},
      {"\"attach\"", EPROTO},
      {"{\"op\":\"attach\"}", EPROTO},
      {"{\"version\":2,\"op\":\"attach\"}", EPROTO},
      {"{\"version\":\"1\",\"op\":\"attach\"}", EPROTO},
      {"{\"version\":-1,\"op\":\"attach\"}", EPROTO},
      {"{\"version\":1.0,\"op\":\"attach\"}", EPROTO},
      {"{\"version\":1}", EINVAL},
      {"{\"version\":1,\"op\":7}", EINVAL},
      {"{\"version\":1,\"op\":\"format disk\"}", EINVAL},
      {"{\"version\":1,\"op\":\"cable\"}", EINVAL},
      {"{\"version\":1,\"op\":\"cable\",\"cable\":28,\"settings\":{}}", EINVAL},
      {"{\"version\":1,\"op\":\"cable\",\"cable\":0,\"settings\":[]}", EINVAL},
      {"{\"version\":1,\"op\":\"cable\",\"cable\":0,\"settings\":{\"drop_ppm\":1000001}}", EINVAL},
      {"{\"version\":1,\"op\":\"cable\",\"cable\":0,\"settings\":{\"drop_ppm\":\"1\"}}", EINVAL},
      {"{\"version\":1,\"op\":\"cable\",\"cable\":0,\"settings\":{\"colour\":1}}", EINVAL},
  };
  for (const auto& c : cases) {
    Request out;
    EXPECT_EQ(decode_request(c.text, out).code(), c.code) << c.text;
  }
}

TEST(AttachProtocol, GrantsOutOfRangeAreRefused) {
  for (const char* text : {
           "{}",
           "{\"ok\":1}",
           "{\"ok\":true}",
           "{\"ok\":true,\"version\":2,\"slot\":1,\"host\":0,\"hosts\":2}",
           "{\"ok\":true,\"version\":1,\"slot\":0,\"host\":0,\"hosts\":2}",
           "{\"ok\":true,\"version\":1,\"slot\":64,\"host\":0,\"hosts\":2}",
           "{\"ok\":true,\"version\":1,\"slot\":1,\"host\":2,\"hosts\":2}",
           "{\"ok\":true,\"version\":1,\"slot\":1,\"host\":0,\"hosts\":9}",
       }) {
    Reply reply;
    EXPECT_EQ(decode_reply(text, Expected::kAttachGrant, reply).code(), EPROTO) << text;
  }
}

TEST(AttachProtocol, ARefusalAlwaysHasACode) {
  for (const char* text :
       {"{\"ok\":false}", "{\"ok\":false,\"code\":0}", "{\"ok\":false,\"code\":99999}"}) {
    Reply reply;
    ASSERT_TRUE(decode_reply(text, Expected::kAttachGrant, reply)) << text;
    EXPECT_EQ(reply.code, EPROTO);
  }
}

TEST(JsonText, DepthAndLengthAreBounded) {
  const auto nested = [](int depth) {
    return "{\"a\":" + std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']') + "}";
  };
  EXPECT_FALSE(parse_json_object(nested(kJsonDepthMax - 1)).is_null());
  EXPECT_TRUE(parse_json_object(nested(kJsonDepthMax)).is_null());
  EXPECT_TRUE(parse_json_object(nested(30000)).is_null());
  EXPECT_TRUE(parse_json_object("{\"a\":\"" + std::string(kJsonBytesMax, 'x') + "\"}").is_null());
}

TEST(JsonText, BracketsInStringsAreNoDepth) {
  const std::string text = "{\"a\":\"\\\"" + std::string(100, '[') + "\"}";
  EXPECT_EQ(json_string(parse_json_object(text), "a"), "\"" + std::string(100, '['));
}

}  // namespace
}  // namespace tbt::fabric
