# Split models, by the commands.
add_test(NAME split/split COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/test_split.sh $<TARGET_FILE:tessera> $<TARGET_FILE:test_receipt>
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
add_test(NAME split/worker COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/test_worker.sh $<TARGET_FILE:tessera> WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
# Workers as processes: the tests start the program.
add_dependencies(test_worker tessera)
add_dependencies(test_remote tessera)
