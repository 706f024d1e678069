# Split models, by the commands.
add_test(NAME split/split COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/test_split.sh $<TARGET_FILE:tessera> $<TARGET_FILE:test_receipt>
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
add_test(NAME split/worker COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/test_worker.sh $<TARGET_FILE:tessera> WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
# Workers as processes: the tests start the program.
add_dependencies(test_worker tessera)
add_dependencies(test_remote tessera)
# Pictures through workers.
add_test(NAME split/client COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/test_client.sh $<TARGET_FILE:tessera> WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(split/client PROPERTIES TIMEOUT 900)
# A worker that lies, for tests and the demonstration; no part of the product.
add_executable(lying_worker ${CMAKE_CURRENT_LIST_DIR}/lying_worker.c)
target_link_libraries(lying_worker room_split)
add_test(NAME split/verify COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/test_verify.sh $<TARGET_FILE:tessera> $<TARGET_FILE:lying_worker>
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(split/verify PROPERTIES TIMEOUT 900)
add_test(NAME split/demo COMMAND sh examples/multiparty.sh $<TARGET_FILE:tessera> $<TARGET_FILE:lying_worker> WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(split/demo PROPERTIES TIMEOUT 600)
add_test(NAME split/verify-study COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/test_verify_study.sh $<TARGET_FILE:tessera> WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(split/verify-study PROPERTIES TIMEOUT 900)
# A client without the workers' weights.
add_test(NAME split/weightless COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/test_weightless.sh $<TARGET_FILE:tessera> $<TARGET_FILE:lying_worker>
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(split/weightless PROPERTIES TIMEOUT 900)
add_test(NAME split/moments COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/test_moments.sh $<TARGET_FILE:tessera> $<TARGET_FILE:lying_worker>
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(split/moments PROPERTIES TIMEOUT 900)
